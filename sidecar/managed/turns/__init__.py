"""What a turn is made of: inputs, translation of opencode's events, tool plans. No I/O."""
