"""Shares one engine among many generations: the policy decides, the runner performs."""
