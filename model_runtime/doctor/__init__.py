"""`pd-doctor`: what this machine has, what of it models can really use, how fast it is, and what to fix."""
