"""Operations on flash and RAM: plan, safety checks, write, read, verify, erase, partitions, load-ram."""
