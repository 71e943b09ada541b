"""The browser is at the other end of this wire: the gateway itself, and the pages that are hubgate's own."""
