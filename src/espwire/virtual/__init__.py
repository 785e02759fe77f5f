"""Virtual chips: software emulations of the device end of the serial line. ``scheduler.py`` describes how time passes."""
