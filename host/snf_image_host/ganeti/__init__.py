"""The Ganeti OS provider: thin scripts that turn Ganeti's environment into a request, and its definition."""
