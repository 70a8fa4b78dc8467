"use strict"
const MOST = 10
const at = (id) => document.getElementById(id)
let about = null
let asked = 0
let shown = null

const percent = (p) => p > 0 && p < 0.0005 ? "< 0.1 %" : p < 1 && p > 0.9995 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`

async function start() {
  about = await (await fetch("/about")).json()
  const count = about.shape.reduce((a, b) => a * b, 1)
  const members = `${about.members} member${about.members === 1 ? "" : "s"}`
  at("about").textContent = `${members}, ${about.classes.length} classes. One input is ${about.shape.join(" × ")} numbers.`
  at("images").hidden = !about.image
  if (about.image) {
    const [channels, height, width] = about.shape
    at("imagehint").textContent = `PNG or JPEG; it becomes ${channels === 1 ? "grey" : "RGB"}, ${height} × ${width} pixels.`
    at("numberslabel").textContent = "Or a row of numbers"
  }
  at("numbershint").textContent = `${count} numbers with commas or spaces between them.`
  at("numbers").dataset.count = count
}

function nested(numbers, shape) {
  if (shape.length === 1) return numbers
  const size = numbers.length / shape[0]
  return Array.from({ length: shape[0] }, (_, i) => nested(numbers.slice(i * size, (i + 1) * size), shape.slice(1)))
}

function numbers() {
  const words = at("numbers").value.split(/[\s,;\[\]]+/).filter((word) => word)
  const found = words.map(Number)
  const wrong = words.find((_, i) => !Number.isFinite(found[i]))
  const count = Number(at("numbers").dataset.count)
  if (wrong !== undefined) throw new Error(`“${wrong.slice(0, 20)}” is no number.`)
  if (found.length !== count) throw new Error(`There are ${found.length} numbers; wanted ${count}.`)
  return JSON.stringify({ inputs: [nested(found, about.shape)] })
}

async function ask(body, kind, image) {
  const mine = ++asked
  fail("")
  at("ask").querySelector("button").disabled = true
  try {
    const response = await fetch("/predict?members=1", { method: "POST", body, headers: { "content-type": kind } })
    const found = await response.json()
    if (mine !== asked) return
    if (!response.ok) throw new Error(found.error)
    show(found.answers[0], image)
  } catch (error) {
    if (mine === asked) fail(error instanceof TypeError ? "The service does not answer." : error.message)
  } finally {
    if (mine === asked) at("ask").querySelector("button").disabled = false
  }
}

function fail(message) {
  at("error").textContent = message
  at("error").hidden = !message
  if (message) at("result").hidden = true
}

function show(answer, image) {
  const preview = at("preview")
  if (preview.src) URL.revokeObjectURL(preview.src)
  preview.hidden = !image
  if (image) preview.src = URL.createObjectURL(image)
  else preview.removeAttribute("src")
  const most = Math.log(about.classes.length)
  at("label").textContent = answer.label
  at("sure").textContent = sure(answer)
  at("probability").textContent = percent(answer.probabilities[answer.class])
  at("agreement").textContent = about.members === 1 ? "there is one" : percent(answer.agreement)
  at("entropy").textContent = answer.entropy.toFixed(3)
  at("entropyof").textContent = `nats, of at most ${most.toFixed(2)}`
  at("information").textContent = answer.mutual_information.toFixed(3)
  at("result").hidden = false
  shown = answer
  chart(answer)
}

function sure(answer) {
  const p = answer.probabilities[answer.class]
  const word = p >= 0.99 ? "Very sure" : p >= 0.9 ? "Sure" : p >= 0.6 ? "Rather sure" : "Not sure"
  const votes = answer.agreement > 0.9999 ? "and all members agree" : answer.agreement > 0.5 ? "though some members disagree" : "and the members disagree"
  return about.members === 1 ? `${word}.` : `${word}, ${votes}.`
}

function node(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  if (text !== undefined) made.textContent = text
  return made
}

function chart(answer) {
  const order = answer.probabilities.map((_, i) => i).sort((a, b) => answer.probabilities[b] - answer.probabilities[a])
  const kept = order.slice(0, MOST)
  if (about.classes.length <= MOST) kept.sort((a, b) => a - b)
  const room = at("chart").clientWidth < 480 ? 10 : 18
  const short = (name) => name.length > room ? `${name.slice(0, room - 1)}…` : name
  const longest = Math.max(...kept.map((c) => short(about.classes[c]).length))
  const wide = Math.max(at("chart").clientWidth, 240), narrow = wide < 480
  const left = 14 + 8 * longest, right = 64, row = 28, top = 8
  const x = (p) => left + p * (wide - left - right), bottom = top + row * kept.length
  const svg = node("svg", { viewBox: `0 0 ${wide} ${bottom + 24}`, role: "img", "aria-label": `${answer.label}: ${percent(answer.probabilities[answer.class])}` })
  for (const p of narrow ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(node("line", { x1: x(p), x2: x(p), y1: top, y2: bottom }))
    svg.append(node("text", { x: x(p), y: bottom + 17, "text-anchor": "middle", class: "axis" }, `${100 * p} %`))
  }
  kept.forEach((c, i) => {
    const y = top + i * row, middle = y + row / 2, p = answer.probabilities[c]
    const label = node("text", { x: left - 8, y: middle + 4.5, "text-anchor": "end" }, short(about.classes[c]))
    label.append(node("title", {}, about.classes[c]))
    svg.append(label, node("rect", { x: left, y: y + 5, width: Math.max(x(p) - left, 0.5), height: row - 10, rx: 2, class: c === answer.class ? "bar top" : "bar" }))
    answer.member_probabilities.forEach((member, k, all) => {
      const spread = all.length > 1 ? (k / (all.length - 1) - 0.5) * (row - 16) : 0
      const dot = node("circle", { cx: x(member[c]), cy: middle + spread, r: 3.4 })
      dot.append(node("title", {}, `member ${k}: ${percent(member[c])}`))
      svg.append(dot)
    })
    svg.append(node("text", { x: wide, y: middle + 4.5, "text-anchor": "end" }, percent(p)))
  })
  at("chart").replaceChildren(svg)
  const rest = about.classes.length - kept.length
  at("caption").textContent = "Numbers on the right are the ensemble's." + (rest > 0 ? ` The ${rest} less probable classes are not shown.` : "")
}

function take(file) {
  if (!file) return
  if (!["image/png", "image/jpeg"].includes(file.type)) return fail(`${file.name} is no PNG or JPEG image.`)
  ask(file, file.type, file)
}

at("file").addEventListener("change", () => take(at("file").files[0]))
at("ask").addEventListener("submit", (event) => {
  event.preventDefault()
  try {
    if (!at("numbers").value.trim() && at("file").files[0]) take(at("file").files[0])
    else ask(numbers(), "application/json", null)
  } catch (error) {
    fail(error.message)
  }
})
for (const name of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(name, (event) => {
    event.preventDefault()
    at("drop").classList.toggle("over", name === "dragover")
    if (name === "drop") take(event.dataTransfer.files[0])
  })
}
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault())
window.addEventListener("resize", () => shown && !at("result").hidden && chart(shown))
start().catch(() => fail("The service does not answer."))
