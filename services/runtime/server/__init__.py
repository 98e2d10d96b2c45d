"""The process around a servicer: settings, channels, interceptors, start and stop."""
