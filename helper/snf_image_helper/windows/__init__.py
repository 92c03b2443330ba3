"""Windows: answer files, passwords, the registry; up to Windows 2003 by sysprep.inf."""
