"""The operator is at the other end of this wire: the command line, the listening processes, the demo."""
