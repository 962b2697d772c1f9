"""The verbs of the command line, a file each, and the parser that they share."""
