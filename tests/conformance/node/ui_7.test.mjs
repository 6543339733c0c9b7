import * as ai from 'ai'

import { testUiStream } from './ui_stream.mjs'

testUiStream(ai)
