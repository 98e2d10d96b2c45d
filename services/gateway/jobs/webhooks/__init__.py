"""Webhooks: signed notices of the ends of jobs, as Standard Webhooks describes them."""
