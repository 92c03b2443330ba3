"""The hostile corpus: images that somebody prepared to harm a node, made of fixture images."""
