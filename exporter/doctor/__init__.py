"""Is this node fit for inference? What was found, what is wrong, and what to do."""
