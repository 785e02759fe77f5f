"""Encryption, signatures and keys. Functions here import ``cryptography``, which is optional; no other package does."""
