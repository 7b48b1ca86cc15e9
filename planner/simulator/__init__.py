"""Many answers in virtual time: the shipping generation state machine and speed controller, against a cloud with
continuous batching, admission, a prefix cache and instances. One event loop; deterministic by seed."""
