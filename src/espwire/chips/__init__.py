"""Facts about chips, and no behaviour: data files, the types they load into, and the register that finds one."""
