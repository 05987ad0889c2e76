"""The domain's side of opencode: sessions in the child, MCP servers, custom tools."""
