def continuations(model, tokenizer, prompts_ids, max_new_tokens, batch_size=8):
    return ["" for _ in prompts_ids]
