"""What to do to the flash and doing it: plan, guards, execute, read, verify, erase. Speaks to chips through device/."""
