"""Who calls, and how much: credentials, policies, quotas, and the audit log."""
