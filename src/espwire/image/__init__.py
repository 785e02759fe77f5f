"""Firmware files ↔ models, pure: images, their headers, Intel HEX. No chip is talked to here."""
