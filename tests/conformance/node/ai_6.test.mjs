import * as ai from 'ai-6'
import * as openResponses from 'ai-6-open-responses'
import * as openai from 'ai-6-openai'
import * as compatible from 'ai-6-openai-compatible'

import { testAiSdk } from './ai_sdk.mjs'

testAiSdk({ ai, openai, compatible, openResponses, steps: 'stepCountIs' })
