"""Which distribution a module comes with, for modules that are common in machine learning. Reviewed by hand."""

DISTRIBUTIONS = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "IPython": "ipython",
    "OpenGL": "PyOpenGL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "community": "python-louvain",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "flash_attn": "flash-attn",
    "git": "GitPython",
    "haiku": "dm-haiku",
    "hydra": "hydra-core",
    "imblearn": "imbalanced-learn",
    "parselmouth": "praat-parselmouth",
    "pyro": "pyro-ppl",
    "google.protobuf": "protobuf",
    "huggingface_hub": "huggingface-hub",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "llama_cpp": "llama-cpp-python",
    "lightning_fabric": "lightning",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "multipart": "python-multipart",
    "mysql": "mysql-connector-python",
    "OpenSSL": "pyOpenSSL",
    "pkg_resources": "setuptools",
    "psycopg2": "psycopg2-binary",
    "pptx": "python-pptx",
    "pylab": "matplotlib",
    "pynvml": "nvidia-ml-py",
    "pytorch_lightning": "pytorch-lightning",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "sentence_transformers": "sentence-transformers",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "socks": "PySocks",
    "tensorflow_datasets": "tensorflow-datasets",
    "torch_geometric": "torch-geometric",
    "umap": "umap-learn",
    "usb": "pyusb",
    "websocket": "websocket-client",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
"""Module -> distribution, where the two have different names."""

SAME = frozenset(
    """
    accelerate aiohttp albumentations altair anndata anthropic arviz astropy av axolotl bitsandbytes bokeh boto3
    botocore catboost chromadb cloudpickle cupy cvxpy dask datasets decord deepspeed diffusers dill distributed
    duckdb e3nn einops emcee evaluate fairseq fastai fastapi fastparquet fire flask flax fsspec gensim geopandas
    gradio gym gymnasium h5py httpx igraph imageio imgaug ipywidgets jax jaxlib jieba joblib jsonlines keras kornia
    langchain librosa lightgbm lightning llvmlite loguru lxml matplotlib mlflow mmcv mmdet monai moviepy mujoco
    nbformat neptune networkx nibabel nilearn nltk numba numexpr numpy omegaconf onnx onnxruntime open3d openai
    openpyxl optax optuna orjson packaging pandas paramiko peft plotly polars psutil pyarrow pycocotools pydantic
    pydicom pydub pygame pymc pymongo pyspark pytest ray rdkit redis regex requests rich safetensors scanpy scipy
    seaborn sentencepiece shap shapely sounddevice soundfile spacy sqlalchemy statsmodels streamlit submitit sympy
    tables tabulate tensorboard tensorboardX tensorflow tensorrt termcolor tiktoken timm tokenizers torch torchaudio
    torchmetrics torchtext torchvision tqdm transformers trimesh triton trl typer uvicorn vllm wandb webdataset wget
    xarray xformers xgboost xlrd yacs yfinance zarr
    """.split()  # noqa: SIM905 (a hundred lines otherwise)
)
"""Modules whose distribution is called as they are."""
