import OpenAI from 'openai-6'
import { zodResponseFormat, zodTextFormat } from 'openai-6/helpers/zod'

import { testOpenAI } from './openai.mjs'

testOpenAI({ OpenAI, zodResponseFormat, zodTextFormat })
