// The official client for JavaScript: what its helpers make of our streams and errors.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'

import { baseUrl, key, model, reasoner } from './target.mjs'

const WEATHER = {
  type: 'function',
  name: 'get_weather',
  description: 'The weather in a city',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
  strict: true,
}

/** `OpenAI` and its zod helpers, of one major version. */
export function testOpenAI({ OpenAI, zodResponseFormat, zodTextFormat }) {
  const client = new OpenAI({ baseURL: baseUrl, apiKey: key, maxRetries: 0 })

  async function all(stream) {
    const events = []
    for await (const event of stream) events.push(event)
    return events
  }

  test('a response is made, read again, listed by its input, and deleted', async () => {
    const made = await client.responses.create({ model, input: 'Count from 1 to 5.' })
    assert.equal(made.output_text, '1, 2, 3, 4, 5')
    assert.deepEqual(await client.responses.retrieve(made.id), made)
    const items = await all(client.responses.inputItems.list(made.id))
    assert.deepEqual(items.map((item) => item.content[0].text), ['Count from 1 to 5.'])
    await client.responses.delete(made.id)
    await assert.rejects(client.responses.retrieve(made.id), OpenAI.NotFoundError)
  })

  test('a stream has every number once, and resumed at every number the same rest', async () => {
    const whole = await all(await client.responses.create({ model, input: 'Count from 1 to 5.', stream: true }))
    assert.deepEqual(whole.map((event) => event.sequence_number), [...whole.keys()])
    const { id } = whole.at(-1).response
    for (const after of whole.keys()) {
      const rest = await client.responses.retrieve(id, { stream: true, starting_after: after })
      assert.deepEqual(await all(rest), whole.slice(after + 1))
    }
  })

  test('a stream that was left in the middle goes on for who comes back', async () => {
    const stream = await client.responses.create({
      model,
      input: 'Count slowly from 1 to 20.',
      stream: true,
      background: true,
    })
    const seen = []
    for await (const event of stream) {
      seen.push(event)
      if (event.type === 'response.output_text.delta') break
    }
    const [{ response }] = seen
    const rest = await client.responses.retrieve(response.id, {
      stream: true,
      starting_after: seen.at(-1).sequence_number,
    })
    const events = [...seen, ...(await all(rest))]
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()])
    const text = events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta)
    assert.equal(text.join(''), Array.from({ length: 20 }, (_, i) => i + 1).join(', '))
    assert.equal(events.at(-1).type, 'response.completed')
  })

  test('the stream helper makes the final response, reasoning included', async () => {
    const stream = client.responses.stream({ model: reasoner, input: 'Count from 1 to 5.' })
    const final = await stream.finalResponse()
    assert.deepEqual(final.output.map((item) => item.type), ['reasoning', 'message'])
    assert.equal(final.output_text, '1, 2, 3, 4, 5')
  })

  test('the stream helper replays a response by its id', async () => {
    const made = await client.responses.create({ model, input: 'Count from 1 to 5.' })
    const stream = client.responses.stream({ response_id: made.id, starting_after: 5 })
    const events = await all(stream)
    assert.equal(events[0].sequence_number, 6)
    assert.equal((await stream.finalResponse()).output_text, made.output_text)
  })

  test('a background response is polled and cancelled', async () => {
    const made = await client.responses.create({ model, input: 'Count slowly from 1 to 500.', background: true })
    assert.ok(['queued', 'in_progress'].includes(made.status))
    assert.equal((await client.responses.cancel(made.id)).status, 'cancelled')
    assert.equal((await client.responses.retrieve(made.id)).status, 'cancelled')
  })

  test('tools go round with the Responses API', async () => {
    const asked = { model, tools: [WEATHER] }
    const input = [{ role: 'user', content: "What is the weather in 'Oslo' and in 'Rome'?" }]
    const first = await client.responses.create({ ...asked, input })
    assert.deepEqual(first.output.map((call) => JSON.parse(call.arguments).city), ['Oslo', 'Rome'])
    const results = first.output.map(({ call_id }, index) => ({
      type: 'function_call_output',
      call_id,
      output: ['sun', 'rain'][index],
    }))
    const resent = await client.responses.create({ ...asked, input: [...input, ...first.output, ...results] })
    assert.equal(resent.output_text, 'The tools say: sun; rain')
    const chained = await client.responses.create({ ...asked, previous_response_id: first.id, input: results })
    assert.equal(chained.output_text, 'The tools say: sun; rain')
  })

  test('a conversation remembers its turns', async () => {
    const { id } = await client.conversations.create({ metadata: { topic: 'numbers' } })
    await client.responses.create({ model, input: 'Count from 1 to 2.', conversation: id })
    const second = await client.responses.create({ model, input: 'Thanks.', conversation: id })
    assert.equal(second.conversation.id, id)
    const items = await all(client.conversations.items.list(id, { order: 'asc' }))
    assert.deepEqual(
      items.map((item) => item.content[0].text),
      ['Count from 1 to 2.', '1, 2', 'Thanks.', 'You said: Thanks.'],
    )
    await client.conversations.delete(id)
    await assert.rejects(client.conversations.retrieve(id), OpenAI.NotFoundError)
  })

  test('output is parsed by a schema with both APIs', async () => {
    const schema = z.object({ name: z.string(), age: z.number() })
    const text = "A person called 'Ann', 33."
    const format = zodTextFormat(schema, 'person')
    const response = await client.responses.parse({ model, input: text, text: { format } })
    assert.deepEqual(response.output_parsed, { name: 'Ann', age: 33 })
    const messages = [{ role: 'user', content: text }]
    const response_format = zodResponseFormat(schema, 'person')
    const chat = await client.chat.completions.parse({ model, messages, response_format })
    assert.deepEqual(chat.choices[0].message.parsed, { name: 'Ann', age: 33 })
  })

  test('a chat is streamed by the helper, with its usage', async () => {
    const messages = [{ role: 'user', content: 'Count from 1 to 5.' }]
    const stream = client.chat.completions.stream({ model, messages, stream_options: { include_usage: true } })
    let text = ''
    stream.on('content', (piece) => (text += piece))
    const final = await stream.finalChatCompletion()
    assert.equal(text, '1, 2, 3, 4, 5')
    assert.equal(final.choices[0].message.content, text)
    assert.equal(final.choices[0].finish_reason, 'stop')
    assert.equal(final.usage.completion_tokens, 9)
  })

  test('runTools calls the function and gives the answer', async () => {
    const { type, ...described } = WEATHER
    const run = client.chat.completions.runTools({
      model,
      stream: true,
      messages: [{ role: 'user', content: "What is the weather in 'Oslo'?" }],
      tools: [{ type, function: { ...described, parse: JSON.parse, function: ({ city }) => `sunny in ${city}` } }],
    })
    assert.equal(await run.finalContent(), 'The tools say: sunny in Oslo')
  })

  test('completions, embeddings and models', async () => {
    const completion = await client.completions.create({ model, prompt: 'Count from 1 to 2.' })
    assert.equal(completion.choices[0].text, '1, 2')
    const vectors = await client.embeddings.create({ model, input: ['sun', 'rain'], dimensions: 8 })
    assert.deepEqual(vectors.data.map((one) => one.embedding.length), [8, 8])
    const names = (await all(client.models.list())).map((one) => one.id)
    assert.ok(names.includes(model))
    assert.equal((await client.models.retrieve(model)).id, model)
  })

  test('errors are of the class, the code and the parameter that the client knows', async () => {
    const wrong = new OpenAI({ baseURL: baseUrl, apiKey: 'wrong', maxRetries: 0 })
    const messages = [{ role: 'user', content: 'hi' }]
    const cases = [
      [() => wrong.models.list(), OpenAI.AuthenticationError, 'invalid_api_key', null],
      [() => client.responses.create({ model: 'no', input: 'hi' }), OpenAI.NotFoundError, 'model_not_found', 'model'],
      [() => client.responses.create({ model, input: 5 }), OpenAI.BadRequestError, 'invalid_value', 'input'],
      [
        () => client.chat.completions.create({ model, messages, temperature: 9 }),
        OpenAI.BadRequestError,
        'invalid_value',
        'temperature',
      ],
      [() => client.responses.compact({ model, input: 'hi' }), OpenAI.NotFoundError, 'route_not_found', null],
    ]
    for (const [call, kind, code, param] of cases) {
      await assert.rejects(call, (error) => {
        assert.ok(error instanceof kind, `${error}`)
        assert.deepEqual([error.code, error.param], [code, param])
        assert.match(error.requestID, /^req_/)
        return true
      })
    }
  })
}
