"""What every resource shares: timestamps, page cursors, metadata, stored rows."""
