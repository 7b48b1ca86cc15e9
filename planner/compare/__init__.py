"""Policies side by side on one workload and one cloud: what users see, what the cloud pays, how many it can serve."""
