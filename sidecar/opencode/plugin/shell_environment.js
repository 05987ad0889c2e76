// Gives each shell of an opencode session the variables of that session's vaults, and the mark by which
// the sidecar finds what outlives opencode.
//
// opencode calls `shell.env` before every command of the agent. The plug-in is loaded once per directory,
// and each session has a directory of its own, so `directory` says whose shell it is. The variables come
// from the sidecar over a Unix socket that answers this process only; they are never kept here.

import http from "node:http"

const TIMEOUT_MILLISECONDS = 10_000
const NOT_FOR_SHELLS = ["OPENCODE_SERVER_PASSWORD", "SIDECAR_RELAY_TOKEN"]

export default async ({ directory }) => ({
  "shell.env": async (_input, output) => {
    for (const name of NOT_FOR_SHELLS) output.env[name] = ""
    output.env.SIDECAR_SHELL_MARKER = process.env.SIDECAR_CHILD_MARKER ?? ""
    Object.assign(output.env, await variables(directory))
  },
})

function variables(directory) {
  if (!process.env.SIDECAR_SHELL_SOCKET) return {} // another container, and no path that both can use
  const body = JSON.stringify({ directory })
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        socketPath: process.env.SIDECAR_SHELL_SOCKET,
        method: "POST",
        path: "/shell-environment",
        headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body) },
        timeout: TIMEOUT_MILLISECONDS,
      },
      (response) => {
        let text = ""
        response.setEncoding("utf8")
        response.on("data", (chunk) => (text += chunk))
        response.on("end", () => {
          if (response.statusCode === 200) resolve(JSON.parse(text).environment)
          else if (response.statusCode === 403) resolve({}) // the kernel does not show us to the sidecar, which has logged it
          else reject(new Error(`the sidecar refused this session's variables (${response.statusCode})`))
        })
        response.on("error", reject)
      },
    )
    request.on("timeout", () => request.destroy(new Error("the sidecar did not answer")))
    request.on("error", (error) =>
      reject(new Error(`this session's variables cannot be had from the sidecar: ${error.message}`)),
    )
    request.end(body)
  })
}
