"""The demo firmware, as package data; README.md tells what it is and how it is made. No code here."""
