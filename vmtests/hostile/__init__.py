"""The hostile corpus: images that somebody prepared to harm a node, made anew from fixture images each time."""
