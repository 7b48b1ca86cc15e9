"""What is on the screen, without a screen. One thread, no I/O: work goes to `demos.chat.background`."""
