// Calls a gateway by OpenAI's own client, unmodified, and prints what came as one JSON object.
//
//     node client.js http://127.0.0.1:8080/v1 picture.png mask.png

import { createReadStream } from 'node:fs'
import OpenAI from 'openai'

const [baseURL, picture, mask] = process.argv.slice(2)
const openai = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 0 })
const image = () => createReadStream(picture)
const prompt = 'a fox'

const models = (await openai.models.list()).data.map((model) => model.id)
const generated = await openai.images.generate({ prompt, seed: 7, base: { steps: 9 } })
const streamed = []
const stream = await openai.images.generate({ prompt, seed: 7, stream: true, partial_images: 2 })
for await (const event of stream) streamed.push(event.type)
const repainted = await openai.images.edit({
  image: image(), mask: createReadStream(mask), prompt, feather_px: 0, base: { steps: 2 },
})
const varied = await openai.images.createVariation({ image: image(), n: 2 })
const refused = await openai.images.generate({ prompt, size: '1024x1024' }).catch((error) => error)

console.log(JSON.stringify({
  models,
  generated: generated.data[0],
  streamed,
  repainted: repainted.data[0].b64_json,
  varied: varied.data.length,
  refused: { name: refused.constructor.name, status: refused.status, param: refused.param },
}))
