"""The web page's two Python sides: the server of its files, and the engine that runs inside it."""
