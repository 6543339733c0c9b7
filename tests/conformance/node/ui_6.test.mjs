import * as ai from 'ai-6'

import { testUiStream } from './ui_stream.mjs'

testUiStream(ai)
