"""What hubgate decides. Nothing in here reads a clock, throws dice, logs or talks to anybody: such things come in."""
