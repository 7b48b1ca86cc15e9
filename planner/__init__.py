"""Profiles and workloads in, a split configuration and its forecast out."""
