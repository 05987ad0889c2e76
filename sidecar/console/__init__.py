"""The console at `/console`: a few pages for operators, and for people who try the sidecar out.

It shows what the parts say and does what the API does, with the same calls: a page reads the catalogue, the
sessions and the state of the admin listener; the script of a session's page sends to the API's own handlers.

    routes     the routes; everything else is loaded with the first request for a page
    guard      who is let in: the cookie, the origin, the token of a form, the headers of every answer
    sign_in    sessions of the console, made from the inbound key, and the bound on attempts; pure
    recent     the last turns, model requests, restarts and errors, in memory
    pages      what a page shows; views and chart prepare it, rendering fills the templates
    static     one stylesheet, one script
"""
