"""Does a model fit this node's VRAM: what it needs, part by part, beside what is free."""
