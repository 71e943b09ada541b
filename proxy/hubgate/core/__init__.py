"""What hubgate decides. Nothing in here reads a clock, throws dice, logs or talks to anybody: all of that comes in as arguments."""
