import OpenAI from 'openai'
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'

import { testOpenAI } from './openai.mjs'

testOpenAI({ OpenAI, zodResponseFormat, zodTextFormat })
