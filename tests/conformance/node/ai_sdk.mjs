// What an app built on the Vercel AI SDK does with a model, over each provider that speaks one of our APIs.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { z } from 'zod'

import { baseUrl, key, model, read, reasoner, until } from './target.mjs'

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

/** `ai`, `openai`, `compatible` and `openResponses` are the modules of one major version; `steps` is its step counter. */
export function testAiSdk({ ai, openai, compatible, openResponses, steps }) {
  const { Output, embed, embedMany, generateText, streamText, tool } = ai
  let seen
  const fetchAndSee = async (url, options) => {
    const answer = await fetch(url, options)
    seen = answer.headers
    return answer
  }
  const direct = openai.createOpenAI({ baseURL: baseUrl, apiKey: key, fetch: fetchAndSee })
  const other = compatible.createOpenAICompatible({
    name: 'openchat',
    baseURL: baseUrl,
    apiKey: key,
    includeUsage: true,
    supportsStructuredOutputs: true,
    fetch: fetchAndSee,
  })
  const open = openResponses.createOpenResponses({
    name: 'openchat',
    url: `${baseUrl}/responses`,
    apiKey: key,
    fetch: fetchAndSee,
  })
  const providers = {
    'openai, Responses': (name) => direct.responses(name),
    'openai, chat': (name) => direct.chat(name),
    'openai-compatible': (name) => other.chatModel(name),
    'open-responses': (name) => open(name),
  }
  const weather = tool({
    description: 'The weather in a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  })

  for (const [name, provided] of Object.entries(providers)) {
    describe(name, () => {
      test('generateText gives the text, its end and its usage', async () => {
        const result = await generateText({ model: provided(model), prompt: 'Count from 1 to 5.' })
        assert.equal(result.text, '1, 2, 3, 4, 5')
        assert.equal(result.finishReason, 'stop')
        assert.equal(result.usage.inputTokens, 5)
        assert.equal(result.usage.outputTokens, 9)
        assert.deepEqual(result.warnings ?? [], [])
      })

      test('streamText gives the same in pieces', async () => {
        const result = streamText({ model: provided(model), prompt: 'Count from 1 to 5.' })
        const pieces = []
        for await (const piece of result.textStream) pieces.push(piece)
        assert.ok(pieces.length > 2)
        assert.equal(pieces.join(''), '1, 2, 3, 4, 5')
        assert.equal(await result.finishReason, 'stop')
        assert.equal((await result.usage).outputTokens, 9)
      })

      test('a maximum ends the text with the reason length', async () => {
        const result = await generateText({ model: provided(model), prompt: 'Count from 1 to 50.', maxOutputTokens: 3 })
        assert.equal(result.finishReason, 'length')
        assert.equal(result.text, '1, 2')
      })

      test('a conversation with a system prompt is taken', async () => {
        const result = await generateText({
          model: provided(model),
          [steps === 'isStepCount' ? 'instructions' : 'system']: 'Be short.',
          messages: [
            { role: 'user', content: 'Hello' },
            { role: 'assistant', content: 'Hi' },
            { role: 'user', content: 'How are you?' },
          ],
        })
        assert.equal(result.text, 'You said: How are you?')
      })

      test('the next turn is sent with the messages of the last, as the provider writes them', async () => {
        const messages = [{ role: 'user', content: "What is the weather in 'Oslo'?" }]
        const asked = { model: provided(model), tools: { weather }, stopWhen: ai[steps](3) }
        const first = await generateText({ ...asked, messages })
        messages.push(...first.response.messages, { role: 'user', content: 'Count from 1 to 2.' })
        const second = await generateText({ ...asked, messages })
        messages.push(...second.response.messages, { role: 'user', content: 'Thanks.' })
        const third = await generateText({ ...asked, messages })
        assert.deepEqual([second.text, third.text], ['1, 2', 'You said: Thanks.'])
        assert.ok(third.usage.inputTokens > second.usage.inputTokens)
      })

      test('a picture arrives', async () => {
        const content = [
          { type: 'text', text: 'What is this?' },
          { type: 'file', data: PNG, mediaType: 'image/png' },
        ]
        const result = await generateText({ model: provided(model), messages: [{ role: 'user', content }] })
        assert.match(result.text, /^I see 1 image\./)
      })

      test('tools go round: streamed arguments, the call, its result, the answer', async () => {
        const result = streamText({
          model: provided(model),
          prompt: "What is the weather in 'Oslo'?",
          tools: { weather },
          stopWhen: ai[steps](3),
        })
        const parts = []
        for await (const part of result.fullStream) parts.push(part)
        const streamed = parts.filter((part) => part.type === 'tool-input-delta').map((part) => part.delta)
        if (name !== 'open-responses') { // that provider shows a call only when it is complete
          assert.ok(streamed.length > 1, 'the arguments come in pieces')
          assert.deepEqual(JSON.parse(streamed.join('')), { city: 'Oslo' })
        }
        const [call] = parts.filter((part) => part.type === 'tool-call')
        assert.deepEqual([call.toolName, call.input], ['weather', { city: 'Oslo' }])
        const taken = await result.steps
        assert.deepEqual(taken.map((step) => step.finishReason), ['tool-calls', 'stop'])
        assert.equal(await result.text, 'The tools say: sunny in Oslo')
      })

      test('two calls at once are both answered', async () => {
        const result = await generateText({
          model: provided(model),
          prompt: "What is the weather in 'Oslo' and in 'Rome'?",
          tools: { weather },
          stopWhen: ai[steps](3),
        })
        assert.deepEqual(result.steps[0].toolCalls.map((call) => call.input.city), ['Oslo', 'Rome'])
        assert.equal(result.text, 'The tools say: sunny in Oslo; sunny in Rome')
      })

      test('a tool that must be called is called', async () => {
        const result = await generateText({
          model: provided(model),
          prompt: 'Hello',
          tools: { weather },
          toolChoice: { type: 'tool', toolName: 'weather' },
        })
        assert.deepEqual(result.toolCalls.map((call) => call.toolName), ['weather'])
        const none = await generateText({
          model: provided(model),
          prompt: 'How is the weather?',
          tools: { weather },
          toolChoice: 'none',
        })
        assert.deepEqual(none.toolCalls, [])
      })

      test('output is held to a schema, streamed and not', async () => {
        const schema = z.object({ name: z.string(), age: z.number().int(), tags: z.array(z.string()) })
        const asked = { model: provided(model), prompt: "A person called 'Ann', 33.", output: Output.object({ schema }) }
        const whole = await generateText(asked)
        assert.deepEqual([whole.output.name, whole.output.age], ['Ann', 33])
        const streamed = streamText(asked)
        const partial = []
        for await (const value of streamed.partialOutputStream) partial.push(value)
        assert.deepEqual(partial.at(-1), whole.output)
        assert.ok(partial.length > 1)
      })

      test('aborted in the middle, the stream ends and so does the response behind it', async () => {
        const leaving = new AbortController()
        const result = streamText({
          model: provided(model),
          prompt: 'Count slowly from 1 to 500.',
          abortSignal: leaving.signal,
        })
        const types = []
        for await (const part of result.fullStream) {
          types.push(part.type)
          if (types.filter((type) => type === 'text-delta').length === 3) leaving.abort()
        }
        assert.equal(types.at(-1), 'abort')
        const id = seen.get('location').match(/[0-9a-f]{32}/)[0]
        const ended = await until(async () => {
          const response = await read(`/v1/responses/resp_${id}`)
          return response.status !== 'in_progress' && response
        }, 'the response to be ended')
        assert.equal(ended.status, 'cancelled')
      })

      test('an unknown model and a wrong key are errors with their status and message', async () => {
        const asked = { model: provided('nothing'), prompt: 'hi', maxRetries: 0 }
        await assert.rejects(generateText(asked), { name: 'AI_APICallError', statusCode: 404, message: /'nothing'/ })
        const wrong = { authorization: 'Bearer wrong' }
        // open-responses wants `param` to be a string, which it is null in OpenAI's own errors: it shows the status alone
        const message = name === 'open-responses' ? 'Unauthorized' : /API key/
        await assert.rejects(generateText({ ...asked, headers: wrong }), { statusCode: 401, message })
      })

      test('an error in the stream reaches onError', async () => {
        let found
        const result = streamText({
          model: provided('nothing'),
          prompt: 'hi',
          maxRetries: 0,
          onError: ({ error }) => (found = error),
        })
        await result.consumeStream()
        assert.equal(found.statusCode, 404)
      })
    })
  }

  for (const [name, provided] of [
    ['openai-compatible', providers['openai-compatible']],
    ['open-responses', providers['open-responses']],
  ]) {
    test(`${name}: reasoning is shown apart from the text`, async () => {
      const result = await generateText({ model: provided(reasoner), prompt: 'Count from 1 to 2.' })
      assert.equal(result.reasoningText, 'Let me see.')
      assert.equal(result.text, '1, 2')
      const streamed = streamText({ model: provided(reasoner), prompt: 'Count from 1 to 2.' })
      assert.deepEqual([await streamed.reasoningText, await streamed.text], ['Let me see.', '1, 2'])
    })
  }

  for (const [name, embedding] of [
    ['openai', () => direct.embeddingModel(model)],
    ['openai-compatible', () => other.embeddingModel(model)],
  ]) {
    test(`${name}: embeddings of one value and of several`, async () => {
      const one = await embed({ model: embedding(), value: 'sunny day' })
      const several = await embedMany({ model: embedding(), values: ['sunny day', 'rain'] })
      assert.deepEqual(several.embeddings[0], one.embedding)
      assert.equal(several.embeddings.length, 2)
      assert.equal(several.usage.tokens, 3)
    })
  }
}
