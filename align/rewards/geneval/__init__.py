"""GenEval: objects in a picture against those that its prompt asks for."""
