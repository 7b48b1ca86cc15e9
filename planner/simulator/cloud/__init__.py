"""The cloud in virtual time: instances that batch continuously, and the gateway before them."""
