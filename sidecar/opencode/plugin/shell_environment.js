// opencode serves all sessions from one process; this keeps them apart where the kernel cannot.
//
// opencode loads the plug-in once per directory, and each session has a directory of its own, so `directory`
// says whose tools and shells these are.
//
// Shells: before every command (`shell.env`) the variables of the session's vaults are fetched from the sidecar,
// over a Unix socket that answers this process only; they are never kept here. The launcher that stands in
// for the shell (processes/confine.c) is told the session's directory.
//
// Files: opencode compares paths with the session's directory before it follows links. When agents are confined,
// paths are resolved here before its file tools run, and refused where they lead out of what is the session's.
// What is written here for a session goes through no link either: its own directories are its agent's.
//
// Code: opencode 1.18.33 has a second reader of configuration, which does not know
// OPENCODE_DISABLE_PROJECT_CONFIG. It imports plug-ins that a workspace names or holds, and packages that it
// names, into this process. So nothing is loaded here but opencode itself and what lies beside this file.

import fs from "node:fs"
import http from "node:http"
import path from "node:path"

const TIMEOUT_MILLISECONDS = 10_000
const NOT_FOR_SHELLS = ["OPENCODE_SERVER_PASSWORD", "SIDECAR_RELAY_TOKEN"]
const READABLE = ["/bin", "/etc", "/lib", "/lib64", "/opt", "/sbin", "/usr"]
const READERS = new Set(["glob", "grep", "list", "read"])
const PATH_ARGUMENTS = ["filePath", "path", "workdir"]
const INSTRUCTIONS = ["AGENTS.md", "CLAUDE.md", "CONTEXT.md"]
const PATCHED_FILE = /^\*\*\* (?:Add File|Update File|Delete File|Move to): (.+)$/gm

if (globalThis.Bun) {
  const own = [path.dirname(import.meta.path), path.dirname(fs.realpathSync(import.meta.path))]
  const allowed = ["/$bunfs/", ...own.map((folder) => folder + path.sep)].map(escaped)
  Bun.plugin({
    name: "nothing of a workspace is loaded",
    setup(build) {
      build.onLoad({ filter: new RegExp(`^(?!${allowed.join("|")})`) }, ({ path: named }) => {
        throw new Error(`${named} is not loaded: it is no part of opencode`)
      })
    },
  })
}

function escaped(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
}

export default async ({ directory }) => {
  const walls = wallsOf(directory)
  return {
    "shell.env": async (_input, output) => {
      for (const name of NOT_FOR_SHELLS) output.env[name] = ""
      output.env.SIDECAR_SHELL_MARKER = process.env.SIDECAR_CHILD_MARKER ?? ""
      const { SIDECAR_PATH_PREFIX: prefix, ...given } = await variables(directory)
      Object.assign(output.env, given)
      if (prefix) output.env.PATH = [prefix, process.env.PATH].filter(Boolean).join(path.delimiter)
      output.env.SIDECAR_SESSION_DIRECTORY = directory
    },
    "tool.execute.before": async ({ tool }, { args }) => {
      if (!walls) return
      for (const named of pathsOf(args)) {
        check(walls, directory, tool, named)
        if (READERS.has(tool)) checkInstructions(walls, directory, named)
      }
    },
    "tool.execute.after": async (_input, output) => {
      if (walls && output?.metadata?.outputPath) moveIn(walls, output)
    },
    "tool.definition": async (_input, output) => {
      if (walls) output.description = output.description.replaceAll(walls.shared, walls.tmp)
    },
  }
}

// What is the session's besides its directory; undefined when agents are not confined.
function wallsOf(directory) {
  const rules = process.env.SIDECAR_SHELL_RULES
  if (!rules) return undefined
  const value = (keyword) => {
    const line = fs.readFileSync(rules, "utf8").split("\n").find((text) => text.startsWith(`${keyword} `))
    return line.slice(keyword.length + 1)
  }
  const workspaces = value("workspaces")
  const inside = path.relative(workspaces, real(directory))
  const name = inside.startsWith("..") ? "" : inside.split(path.sep)[0]
  const own = name ? path.join(value("private"), name) : path.join(value("private"), ".none")
  const home = path.join(own, "home")
  const tmp = path.join(own, "tmp")
  for (const made of [home, tmp]) if (!isLink(made)) fs.mkdirSync(made, { recursive: true, mode: 0o700 })
  // The directory that opencode recommends for temporary files is the same for all sessions.
  return { own, tmp, shared: path.join(value("tmp"), "opencode") }
}

function pathsOf(args) {
  if (typeof args !== "object" || args === null) return []
  const named = PATH_ARGUMENTS.map((name) => args[name])
  if (typeof args.patchText === "string") {
    for (const match of args.patchText.matchAll(PATCHED_FILE)) named.push(match[1].trim())
  }
  return named.filter((text) => typeof text === "string")
}

function check(walls, directory, tool, named) {
  const target = real(path.resolve(directory, named))
  const allowed = [real(directory), real(walls.own), ...(READERS.has(tool) ? READABLE.map(real) : [])]
  if (!allowed.some((place) => isIn(place, target))) {
    throw new Error(`${named} is outside of this session's directory (${directory}) and of ${walls.tmp}`)
  }
  // A named pipe would hold one of the few threads that read files for all sessions.
  if (isSpecial(target)) throw new Error(`${named} is neither a file nor a directory`)
}

// With a file, opencode reads such files of the directories above it, and follows their links.
function checkInstructions(walls, directory, named) {
  const start = path.dirname(path.resolve(directory, named))
  for (let folder = start; isIn(directory, folder); folder = path.dirname(folder)) {
    for (const name of INSTRUCTIONS) check(walls, directory, "read", path.join(folder, name))
  }
}

function isIn(place, target) {
  return target === place || target.startsWith(place + path.sep)
}

// Where a path leads, all links followed; what is not there yet is added to what is.
function real(text) {
  try {
    return fs.realpathSync(text)
  } catch (error) {
    if (error.code !== "ENOENT" && error.code !== "ENOTDIR") throw error
    const parent = path.dirname(text)
    if (isLink(text)) return real(path.resolve(real(parent), fs.readlinkSync(text)))
    return parent === text ? text : path.join(real(parent), path.basename(text))
  }
}

function isLink(text) {
  return fs.lstatSync(text, { throwIfNoEntry: false })?.isSymbolicLink() ?? false
}

function isSpecial(target) {
  try {
    const found = fs.statSync(target)
    return !found.isFile() && !found.isDirectory()
  } catch {
    return false // it is not there, or opencode finds the same error
  }
}

// opencode keeps the full text of long output in one directory for all sessions, which none may read.
function moveIn(walls, output) {
  const saved = output.metadata.outputPath
  const own = path.join(walls.tmp, path.basename(saved))
  try {
    if (isLink(walls.tmp)) return
    fs.copyFileSync(saved, own, fs.constants.COPYFILE_EXCL)
    fs.rmSync(saved)
  } catch {
    return // it stays where it is; the path in the output then cannot be read
  }
  output.metadata.outputPath = own
  if (typeof output.output === "string") output.output = output.output.replaceAll(saved, own)
}

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
