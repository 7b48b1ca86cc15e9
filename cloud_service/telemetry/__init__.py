"""What the service tells of its work to those who run it, beside metrics and logs."""
