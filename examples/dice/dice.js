const mostDice = 100
const mostSides = 1000

// parse('2d6+1') is {dice: {count: 2, sides: 6, bonus: 1}}; what is no dice is {problem: a sentence that says why}.
export function parse(text) {
  const m = /^(\d{0,9})\s*[dwк]\s*(\d{1,9})\s*(?:([+\-−])\s*(\d{1,6}))?$/iu.exec(text)
  if (!m) return { problem: `I don't know how to roll “${text.slice(0, 40)}”. Try 2d6, or send /help.` }
  const count = m[1] === '' ? 1 : Number(m[1])
  const sides = Number(m[2])
  const bonus = m[3] ? Number(m[4]) * (m[3] === '+' ? 1 : -1) : 0
  if (count < 1 || count > mostDice) return { problem: `I have 1 to ${mostDice} dice, not ${count}.` }
  if (sides < 2 || sides > mostSides) return { problem: `My dice have 2 to ${mostSides} sides, not ${sides}.` }
  return { dice: { count, sides, bonus } }
}

export function roll({ count, sides, bonus }) {
  return { rolls: Array.from({ length: count }, () => 1 + below(sides)), bonus }
}

// A random integer from 0 to n-1, each equally likely: numbers of the last, incomplete multiple of n are drawn again.
function below(n) {
  const limit = 2 ** 32 - (2 ** 32 % n)
  const number = new Uint32Array(1)
  do crypto.getRandomValues(number)
  while (number[0] >= limit)
  return number[0] % n
}
