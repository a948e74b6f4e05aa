import { parse, roll } from './dice.js'

const help = `I roll dice. Send me how many and of how many sides:
2d6 – two dice of six sides
d20 – one of twenty
3d8+2 – three of eight, and two more

In groups, write /roll 2d6.`

export default {
  async message(msg) {
    const text = msg.text.trim()
    if (/^\/help\b/i.test(text)) return help
    const wish = text.replace(/^\/roll\b/i, '').trim() || 'd6'
    const { dice, problem } = parse(wish)
    return problem ?? describe(roll(dice))
  },
}

function describe({ rolls, bonus }) {
  const terms = rolls.join(' + ') + (bonus ? ` ${bonus > 0 ? '+' : '−'} ${Math.abs(bonus)}` : '')
  const sum = rolls.reduce((a, b) => a + b, bonus)
  return rolls.length === 1 && !bonus ? `🎲 ${sum}` : `🎲 ${terms} = ${sum}`
}
