"""Sessions and the turns that run in them: acceptance, execution, recovery, retention."""
