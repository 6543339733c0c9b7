import * as ai from 'ai'
import * as openResponses from '@ai-sdk/open-responses'
import * as openai from '@ai-sdk/openai'
import * as compatible from '@ai-sdk/openai-compatible'

import { testAiSdk } from './ai_sdk.mjs'

testAiSdk({ ai, openai, compatible, openResponses, steps: 'isStepCount' })
