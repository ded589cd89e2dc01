"""Scale-out requests: decided once, kept until delivered or expired, told to every receiver."""
