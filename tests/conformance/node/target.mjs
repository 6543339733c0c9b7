// Where the stack is that is tested: tests/conformance/suites.py says so in the environment.

export const baseUrl = process.env.CONFORMANCE_BASE_URL
export const rootUrl = baseUrl.replace(/\/v1$/, '')
export const key = process.env.CONFORMANCE_KEY
export const model = process.env.CONFORMANCE_MODEL
export const reasoner = process.env.CONFORMANCE_OTHER_MODEL
export const headers = { authorization: `Bearer ${key}` }

/** The JSON of a GET. */
export async function read(path) {
  const answer = await fetch(rootUrl + path, { headers })
  return answer.json()
}

/** The first true value; fails after ten seconds. */
export async function until(condition, what) {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    const value = await condition()
    if (value) return value
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error(`waited 10 s for ${what}`)
}
