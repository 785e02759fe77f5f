"""The demo firmware, as package data; README.md describes how it is built."""
